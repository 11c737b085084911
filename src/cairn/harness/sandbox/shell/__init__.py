"""The program of a shell worker: a virtual bash in a process of its own, which has nothing but one socket.

It runs on an interpreter's standard library and bashkit alone: nothing of Cairn is imported, and nothing here is imported by
the host, which takes every word of it as hostile input.
"""
