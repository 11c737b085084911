-- What format 2 adds to the tables of schema.sql. Applied in the transaction that brings a file from format 1 to 2; a new file
-- gets both, so that a migrated store and a new one are the same to SQLite.
--
-- A fork's log is its source's rows up to `fork_offset` and then its own; nothing is copied. `forked_from` is the instance
-- that owns the row at `fork_offset`, so each step up a lineage leads to older rows, and the key keeps a source's rows for as
-- long as somebody shares them. A deleted instance stays in `instances`, with `deleted_at` and without its address, until
-- its rows are purged, or for as long as forks share some: every statement that means living instances says so.
-- `tombstones` is all that remains of a deleted instance for good. `snapshots` is a cache; `tokens` is truth.

alter table instances add column forked_from integer references instances (n);

alter table instances add column fork_offset integer;

alter table instances add column deleted_at real;

-- What the records and chunks of the rows of its own weigh, kept by whatever adds or removes a row: nobody has to read a log to
-- know its size.
alter table instances add column bytes integer not null default 0;

update instances set bytes = (select coalesce(sum(length(records) + length(chunks)), 0) from log where log.n = instances.n);

create index instances_by_source on instances (forked_from, fork_offset) where forked_from is not null;

create index instances_deleted on instances (deleted_at) where deleted_at is not null;

-- A list of one kind's conversations, newest first, reads no more of them than it shows.
create index instances_by_kind on instances (tenant, kind) where deleted_at is null;

-- The first ordinal that refers to the content: a fork refers to what is at or below its offset. Format 1 did not say, so its
-- references count as made at the very beginning, and every fork keeps them.
alter table blob_references add column ordinal integer not null default 0;

create table tombstones (
  n          integer primary key,
  tenant     text not null,
  kind       text not null,
  id         text not null,
  uid        text not null,
  deleted_at real not null
) strict;

-- What a reader of one version of the projection has seen at `ordinal`: the newest only.
create table snapshots (
  n          integer primary key references instances (n) on delete cascade,
  ordinal    integer not null,
  projection integer not null,
  state      blob not null
) strict;

-- `hash` is of the token, which is stored nowhere; `grants` and `agents` are JSON arrays of text.
create table tokens (
  hash       text primary key,
  tenant     text not null,
  name       text not null,
  grants     text not null,
  agents     text not null,
  trusted    integer not null,
  created_at real not null,
  expires_at real,
  unique (tenant, name)
) strict, without rowid;
