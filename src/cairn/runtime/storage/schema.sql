-- The tables of a SQLite store, format 1; schema-2.sql has what came after. Applied once, in the transaction that creates the
-- file (format.py).
--
-- An instance is one row of `instances` and its rows in `log`. `instances` also says who owns it; the fence is (n, epoch),
-- and `n` is never reused, so that a worker left over from a deleted instance's life is stopped by the same fence.
-- `workers` is one row, and one lease, per process. `admissions` and `producers` make repeats harmless. `due` is the one
-- index a worker scans for work. `checkpoints` are folds kept so that activation need not read the whole log. `blobs`
-- is content by hash, in chunks, kept while an instance refers to it.
-- `log`, `instances`, `workers` and `blobs` are truth; everything else can be rebuilt from the log.
--
-- `strict` everywhere: a value of the wrong type is a bug that must not be stored (S14).

-- One lease per process. `lease_until` is in seconds on the boot clock of the kernel boot `boot`: no process of another
-- boot can be alive, and no wall clock can end a lease.
create table workers (
  id          text primary key,
  host        text not null,
  pid         integer not null,
  kinds       text not null,
  started_at  real not null,
  lease_until real not null,
  lock        text not null,
  boot        text not null
) strict, without rowid;

-- `head` is the last ordinal given, `reserved` the last that may be given without a synced commit raising it, `boot` the
-- machine's boot that gave `head` (after another boot, ordinals up to `reserved` may have been seen and lost again).
create table instances (
  n           integer primary key autoincrement,
  tenant      text not null,
  kind        text not null,
  id          text not null,
  uid         text not null,
  incarnation text not null,
  head        integer not null,
  reserved    integer not null,
  boot        text not null,
  epoch       integer not null,
  owner       text references workers (id) on delete set null,
  created_at  real not null,
  unique (tenant, kind, id)
) strict;

create index instances_by_owner on instances (owner) where owner is not null;

-- One row per batch. A rowid table, because rows of 1-4 KB stay on one leaf here and spill to overflow pages in a
-- `without rowid` table. `prev` is the ordinal before (-1 for the first); `merged_from` the first ordinal a merged row
-- stands for; `checksum` covers everything else in the row (row.py).
create table log (
  row         integer primary key,
  n           integer not null references instances (n) on delete cascade,
  ordinal     integer not null,
  prev        integer not null,
  epoch       integer not null,
  merged_from integer,
  projection  integer not null,
  checksum    integer not null,
  records     blob not null,
  chunks      blob not null
) strict;

create unique index log_by_ordinal on log (n, ordinal);

-- One row per idempotency key: which fiber it admitted, with which body, where.
create table admissions (
  n       integer not null references instances (n) on delete cascade,
  key     text not null,
  fiber   text not null,
  digest  blob not null,
  ordinal integer not null,
  prev    integer not null,
  primary key (n, key)
) strict, without rowid;

-- One row per producer's write, never trimmed: a repeat is recognised however late it comes.
create table producers (
  n       integer not null references instances (n) on delete cascade,
  id      text not null,
  epoch   integer not null,
  seq     integer not null,
  digest  blob not null,
  ordinal integer not null,
  prev    integer not null,
  primary key (n, id, epoch, seq)
) strict, without rowid;

create table due (
  n      integer not null references instances (n) on delete cascade,
  name   text not null,
  due_at real not null,
  primary key (n, name)
) strict, without rowid;

create index due_by_time on due (due_at);

create table checkpoints (
  n       integer not null references instances (n) on delete cascade,
  ordinal integer not null,
  epoch   integer not null,
  state   blob not null,
  primary key (n, ordinal)
) strict;

-- `complete` is 0 while chunks are still arriving; only complete content can be read or referred to.
create table blobs (
  blob       integer primary key autoincrement,
  tenant     text not null,
  hash       text not null,
  bytes      integer not null,
  complete   integer not null,
  touched_at real not null
) strict;

create unique index blobs_by_hash on blobs (tenant, hash) where complete = 1;

create table blob_chunks (
  blob integer not null references blobs (blob) on delete cascade,
  i    integer not null,
  data blob not null,
  primary key (blob, i)
) strict;

create table blob_references (
  n    integer not null references instances (n) on delete cascade,
  blob integer not null references blobs (blob),
  primary key (n, blob)
) strict, without rowid;

create index blob_references_by_blob on blob_references (blob);
