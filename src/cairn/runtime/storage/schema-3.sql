-- What format 3 adds. Applied in the transaction that brings a file from format 2 to 3.
--
-- `dumps` is a cache: the state of what an instance runs in an interpreter of its own, which costs time to make again from the
-- log. By name, the newest only; a fork has none of its source's.

create table dumps (
  n    integer not null references instances (n) on delete cascade,
  name text not null,
  data blob not null,
  primary key (n, name)
) strict, without rowid;
