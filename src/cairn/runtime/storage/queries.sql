-- Every statement the SQLite store runs, by name. queries.py reads this file; schema.sql has the tables.
--
-- The life of a group of writes (commit.py), one transaction: `group_instances` and `group_addresses` read the instances
-- concerned; `group_admissions`, `group_standings`, `group_writes` and `group_blobs` what repeats and references need, when
-- some write has any; plan.py decides; `create_instances`, `move_heads` and `move_instances` say what became of the
-- instances; `append_rows` and the `keep_…`, `set_…`, `clear_…` statements write the rest. Their number does not grow with the
-- group: lists arrive as JSON or as rows of `values`, which queries.py repeats where a line says `:rows`.
-- An argument that is used more than once, or out of order, has a name.
--
-- Readers: `find…`, `read_rows`, `heads_of`, `due_now`. Workers: `keep_worker` … `drop_worker`. Content: `…_blob…`.
-- Whole logs: `…lineage…`, `…_shared…`, `fork_…` (lineage.py, forking.py), `bury`, `hide_…`, `purge_…` (deleting.py), `merge_…` (merging.py).
-- Care (care.py): `check_…`, `info`.
--
-- A deleted instance whose rows forks still share has `deleted_at`; what means living instances says `deleted_at is null`.

-- name: group_instances
-- The instances of a group, and whether their head was given in this boot.
select n, tenant, kind, id, uid, head, reserved, boot = ?, epoch, owner, bytes
  from instances
 where n in (select value from json_each(?)) and deleted_at is null

-- name: group_instance
-- The same for the commonest group, of one instance.
select n, tenant, kind, id, uid, head, reserved, boot = ?, epoch, owner, bytes from instances where n = ? and deleted_at is null

-- name: group_addresses
-- The same by address, for requests that may have to create theirs.
select i.n, i.tenant, i.kind, i.id, i.uid, i.head, i.reserved, i.boot = ?, i.epoch, i.owner, i.bytes
  from json_each(?) as v
  join instances as i on i.tenant = v.value ->> 0 and i.kind = v.value ->> 1 and i.id = v.value ->> 2
 where i.deleted_at is null

-- name: last_n
-- The highest instance number ever given; explicit numbers above it move the sequence.
select coalesce((select seq from sqlite_sequence where name = 'instances'), 0)

-- name: group_admissions
-- What the keys of a group were admitted as.
select a.n, a.key, a.fiber, a.digest, a.ordinal, a.prev
  from json_each(?) as v
  join admissions as a on a.n = v.value ->> 0 and a.key = v.value ->> 1

-- name: group_standings
-- The newest write of each producer of a group.
select p.n, p.id, p.epoch, max(p.seq)
  from json_each(?) as v
  join producers as p on p.n = v.value ->> 0 and p.id = v.value ->> 1
 where p.epoch = (select max(q.epoch) from producers as q where q.n = p.n and q.id = p.id)
 group by p.n, p.id

-- name: group_writes
-- The writes of a group that the log already has.
select p.n, p.id, p.epoch, p.seq, p.digest, p.ordinal, p.prev
  from json_each(?) as v
  join producers as p
    on p.n = v.value ->> 0 and p.id = v.value ->> 1 and p.epoch = v.value ->> 2 and p.seq = v.value ->> 3

-- name: group_blobs
-- Content that a group refers to and that is here.
select b.tenant, b.hash, b.blob
  from json_each(?) as v
  join blobs as b on b.tenant = v.value ->> 0 and b.hash = v.value ->> 1 and b.complete = 1

-- name: create_instances
-- Instances born in this group, with what the rest of the group made of them.
insert into instances (n, tenant, kind, id, uid, incarnation, head, reserved, boot, epoch, owner, created_at, bytes)
values :rows (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: move_heads
-- The usual case: only the head moved, and the log is heavier. The argument is a list of n, head and bytes.
update instances set head = v.value ->> 1, bytes = v.value ->> 2 from json_each(?) as v where n = v.value ->> 0

-- name: move_head
-- The same for one instance.
update instances set head = ?, bytes = ? where n = ?

-- name: move_instances
-- The rare case: a block was reserved, another boot began, or the owner changed.
update instances
   set head     = v.value ->> 1,
       reserved = v.value ->> 2,
       boot     = ?,
       epoch    = v.value ->> 3,
       owner    = v.value ->> 4,
       bytes    = v.value ->> 5
  from json_each(?) as v
 where n = v.value ->> 0

-- name: append_rows
-- The batches of a group.
insert into log (n, ordinal, prev, epoch, projection, checksum, records, chunks)
values :rows (?, ?, ?, ?, ?, ?, ?, ?)

-- name: keep_admissions
-- Idempotency keys taken in this group.
insert into admissions (n, key, fiber, digest, ordinal, prev)
values :rows (?, ?, ?, ?, ?, ?)

-- name: keep_writes
-- Producers' writes taken in this group.
insert into producers (n, id, epoch, seq, digest, ordinal, prev)
values :rows (?, ?, ?, ?, ?, ?, ?)

-- name: set_alarms
-- Alarms set in this group.
insert into due (n, name, due_at)
values :rows (?, ?, ?)
    on conflict (n, name) do update set due_at = excluded.due_at

-- name: clear_alarms
-- Alarms cleared in this group.
delete from due
 where (n, name) in (select v.value ->> 0, v.value ->> 1 from json_each(?) as v)

-- name: keep_references
-- Content that batches of this group refer to.
insert or ignore into blob_references (n, blob, ordinal)
values :rows (?, ?, ?)

-- name: find_address
-- One instance by address.
select n, tenant, kind, id, uid, incarnation, head, reserved, epoch, owner, created_at, forked_from, fork_offset, bytes
  from instances
 where tenant = ? and kind = ? and id = ? and deleted_at is null

-- name: find_n
-- One instance by number.
select n, tenant, kind, id, uid, incarnation, head, reserved, epoch, owner, created_at, forked_from, fork_offset, bytes
  from instances
 where n = ? and deleted_at is null

-- name: find_page
-- A page of instances. A null kind or tenant matches all.
select n, tenant, kind, id, uid, incarnation, head, reserved, epoch, owner, created_at, forked_from, fork_offset, bytes
  from instances
 where n > :after and (:kind is null or kind = :kind) and (:tenant is null or tenant = :tenant) and deleted_at is null
 order by n
 limit :limit

-- name: find_alarmed
-- A page of the instances that have an alarm of that name: as many rows as there are alarms are looked at, not instances.
select i.n, i.tenant, i.kind, i.id, i.uid, i.incarnation, i.head, i.reserved, i.epoch, i.owner, i.created_at, i.forked_from, i.fork_offset, i.bytes
  from due as d
  join instances as i on i.n = d.n
 where d.name = :alarm and d.n > :after and (:kind is null or i.kind = :kind) and (:tenant is null or i.tenant = :tenant)
   and i.deleted_at is null
 order by d.n
 limit :limit

-- name: find_newest
-- The same from the newest down: below a number, or from the top.
select n, tenant, kind, id, uid, incarnation, head, reserved, epoch, owner, created_at, forked_from, fork_offset, bytes
  from instances
 where n < :before and n > :after and (:kind is null or kind = :kind) and (:tenant is null or tenant = :tenant)
   and deleted_at is null
 order by n desc
 limit :limit

-- name: find_newest_of_kind
-- The commonest list: of one kind and tenant, along its index.
select n, tenant, kind, id, uid, incarnation, head, reserved, epoch, owner, created_at, forked_from, fork_offset, bytes
  from instances
 where tenant = :tenant and kind = :kind and deleted_at is null and n < :before and n > :after
 order by n desc
 limit :limit

-- name: read_rows
-- Rows after an ordinal, led by the row at or before it without its content, so that the first link can be verified too.
-- One statement, so one snapshot: `head` belongs to the same moment as the rows, and is null when the instance is deleted.
select ordinal, prev, epoch, merged_from, projection, checksum,
       iif(ordinal > :after, records, null), iif(ordinal > :after, chunks, null),
       (select head from instances where n = :n and deleted_at is null),
       (select fork_offset from instances where n = :n)
  from log
 where n = :n
   and ordinal >= coalesce((select max(ordinal) from log where n = :n and ordinal <= :after), :after)
 order by ordinal
 limit :limit

-- name: read_shared
-- The same of rows that a fork shares, up to the last of them; whether their instance is deleted makes no difference.
select ordinal, prev, epoch, merged_from, projection, checksum,
       iif(ordinal > :after, records, null), iif(ordinal > :after, chunks, null)
  from log
 where n = :n
   and ordinal >= coalesce((select max(ordinal) from log where n = :n and ordinal <= :after), :after)
   and ordinal <= :upto
 order by ordinal
 limit :limit

-- name: find_lineage
-- Whose rows a log consists of, oldest first: those of each `n` above one ordinal and up to another.
  with recursive line (n, above, upto, source) as (
       select n, coalesce(fork_offset, -1), head, forked_from from instances where n = ? and deleted_at is null
       union all
       select i.n, coalesce(i.fork_offset, -1), line.above, i.forked_from from line join instances as i on i.n = line.source
  )
select n, above, upto from line order by upto

-- name: find_row
-- The first row at or after an ordinal, which is the one that covers it, if any does.
select ordinal, merged_from from log where n = ? and ordinal >= ? order by ordinal limit 1

-- name: find_row_epoch
select epoch from log where n = ? and ordinal = ?

-- name: find_row_before
-- The last row at or before an ordinal.
select max(ordinal) from log where n = ? and ordinal <= ?

-- name: fork_instance
-- An instance whose log begins with another's.
insert into instances (n, tenant, kind, id, uid, incarnation, head, reserved, boot, epoch, owner, created_at, forked_from, fork_offset, bytes)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, null, ?, ?, ?, ?)

-- name: fork_references
-- What the shared rows of `source` refer to is kept for the fork too.
insert or ignore into blob_references (n, blob, ordinal)
select :n, blob, ordinal from blob_references where n = :source and ordinal <= :offset

-- name: bury
-- What remains of a deleted instance. Nothing when it is deleted already, or never was.
insert into tombstones (n, tenant, kind, id, uid, deleted_at)
select n, tenant, kind, id, uid, :now from instances where n = :n and deleted_at is null
returning n

-- name: hide_instance
-- Nobody's address, nobody's property; no kind of agent has an empty name. `uid` is what is still to be purged.
update instances set kind = '', id = cast(n as text), incarnation = '', owner = null, deleted_at = :now where n = :n

-- name: hide_alarms
-- Nobody is to be woken for it.
delete from due where n = ?

-- name: purge_next
-- A deleted instance of which more is there than forks share: its own offset, and the last row that is shared.
select n, fork_offset, shared
  from (select n, uid, fork_offset, head, (select max(fork_offset) from instances as f where f.forked_from = i.n) as shared
          from instances as i
         where deleted_at is not null)
 where shared is null or head > shared or uid <> ''
 limit 1

-- name: purge_admissions
-- A piece of them; the same of what follows.
delete from admissions
 where n = :n and key in (select key from admissions where n = :n limit :limit)
returning n

-- name: purge_producers
delete from producers
 where n = :n and (id, epoch, seq) in (select id, epoch, seq from producers where n = :n limit :limit)
returning n

-- name: purge_content
-- Content it refers to, and what that weighs.
select r.blob, b.bytes from blob_references as r join blobs as b on b.blob = r.blob where r.n = ? limit ?

-- name: purge_reference
-- The forks have their own.
delete from blob_references where n = ? and blob = ?

-- name: purge_blob
-- Content that nobody else refers to, and nobody is just about to.
delete from blobs
 where blob = :blob and touched_at < :before and not exists (select 1 from blob_references where blob = :blob)

-- name: purge_snapshot
delete from snapshots where n = ?

-- name: purge_dumps
delete from dumps where n = ?

-- name: purge_checkpoints
-- Folds of rows that no fork shares.
delete from checkpoints where n = ? and ordinal > ?

-- name: purge_sizes
-- The newest rows that no fork shares, and what they weigh.
select ordinal, prev, length(records) + length(chunks) from log where n = ? and ordinal > ? order by ordinal desc limit ?

-- name: purge_rows
delete from log where n = ? and ordinal >= ?

-- name: purge_head
-- The log ends there now, and is lighter.
update instances set head = ?, bytes = bytes - ?, uid = '' where n = ?

-- name: purge_instance
-- Its last trace but the tombstone.
delete from instances where n = ?

-- name: merge_range
-- What is known of a range of rows: how many, the first, the last, how many were merged before, and what they weigh.
select count(*), min(ordinal), max(ordinal), count(merged_from), sum(length(records) + length(chunks))
  from log
 where n = :n and ordinal between :first and :last

-- name: merge_forks
-- Whether a fork parts inside a range, before its last row.
select exists (select 1 from instances where forked_from = :n and fork_offset >= :first and fork_offset < :last)

-- name: merge_ends
-- What the merged row takes over from the first and from the last.
select (select prev from log where n = :n and ordinal = :first), (select epoch from log where n = :n and ordinal = :last)

-- name: merge_away
-- Every row of the range but the last.
delete from log where n = :n and ordinal >= :first and ordinal < :last

-- name: merge_into
-- The last row stands for all of them.
update log
   set prev = :prev, merged_from = :first, projection = :projection, checksum = :checksum, records = :records, chunks = :chunks
 where n = :n and ordinal = :last

-- name: merge_weight
-- One row weighs less than many.
update instances set bytes = bytes + ? where n = ?

-- name: merge_checkpoints
-- Folds that end inside.
delete from checkpoints where n = :n and ordinal >= :first and ordinal < :last

-- name: merge_snapshots
delete from snapshots where n = :n and ordinal >= :first and ordinal < :last

-- name: heads_of
-- The heads of the instances that somebody waits for.
select n, head from instances where n in (select value from json_each(?)) and deleted_at is null

-- name: data_version
-- Changes when another connection, of any process, has committed.
pragma data_version

-- name: keep_worker
-- A worker's lease, new or renewed. Renewing writes the whole row: a process that was believed dead and is not exists again.
insert into workers (id, host, pid, kinds, started_at, lease_until, lock, boot)
values (?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (id) do update
   set host = excluded.host, pid = excluded.pid, kinds = excluded.kinds, started_at = excluded.started_at,
       lease_until = excluded.lease_until, lock = excluded.lock, boot = excluded.boot

-- name: drop_worker
-- A worker that is gone. The foreign key frees its instances.
delete from workers where id = ?

-- name: workers_of_other_boots
-- Whether there are any.
select exists (select 1 from workers where boot <> ?)

-- name: drop_workers_of_other_boots
-- No process survives its kernel.
delete from workers where boot <> ?

-- name: all_workers
-- Every process with a lease, ended or not.
select id, host, pid, kinds, started_at, lease_until, lock from workers order by id

-- name: due_now
-- Alarms that ring at or before now, oldest first, without the instances of some owners.
select i.n, i.tenant, i.kind, i.id, d.name, d.due_at, i.epoch, i.owner
  from due as d
  join instances as i on i.n = d.n
 where d.due_at <= :now and i.kind in (select value from json_each(:kinds))
   and (i.owner is null or i.owner not in (select value from json_each(:excluded)))
 order by d.due_at, d.n, d.name
 limit :limit

-- name: due_next
-- When the next alarm of these kinds rings, or the first after a time.
select d.due_at
  from due as d
  join instances as i on i.n = d.n
 where i.kind in (select value from json_each(:kinds)) and (:after is null or d.due_at > :after)
 order by d.due_at
 limit 1

-- name: keep_checkpoint
-- A fold at a row of the instance's own, unless its author has been fenced or the row has been merged away.
insert into checkpoints (n, ordinal, epoch, state)
select n, :ordinal, :epoch, :state
  from instances
 where n = :n and epoch = :epoch and deleted_at is null
   and exists (select 1 from log where n = :n and ordinal = :ordinal)
    on conflict (n, ordinal) do update set epoch = excluded.epoch, state = excluded.state

-- name: trim_checkpoints
-- Only the two newest are kept.
delete from checkpoints
 where n = :n
   and ordinal < (select min(ordinal) from (select ordinal from checkpoints where n = :n order by ordinal desc limit 2))

-- name: find_checkpoint
-- The newest fold at or before an ordinal; a null ordinal means the newest. A fork's may be its source's, of a shared row.
  with recursive line (n, upto, above, source) as (
       select n, head, coalesce(fork_offset, -1), forked_from from instances where n = :n and deleted_at is null
       union all
       select i.n, line.above, coalesce(i.fork_offset, -1), i.forked_from from line join instances as i on i.n = line.source
  )
select c.ordinal, c.state
  from line
  join checkpoints as c on c.n = line.n and c.ordinal <= line.upto and (:ordinal is null or c.ordinal <= :ordinal)
 order by c.ordinal desc
 limit 1

-- name: keep_snapshot
-- What readers have seen at a row of the instance's own, unless it has been merged away or a later one is kept already.
insert into snapshots (n, ordinal, projection, state)
select n, :ordinal, :projection, :state
  from instances
 where n = :n and deleted_at is null and exists (select 1 from log where n = :n and ordinal = :ordinal)
    on conflict (n) do update
   set ordinal = excluded.ordinal, projection = excluded.projection, state = excluded.state
 where excluded.projection <> snapshots.projection or excluded.ordinal >= snapshots.ordinal

-- name: find_snapshot
select s.ordinal, s.state
  from snapshots as s
  join instances as i on i.n = s.n and i.deleted_at is null
 where s.n = ? and s.projection = ?

-- name: keep_dump
insert into dumps (n, name, data)
select n, :name, :data from instances where n = :n and deleted_at is null
    on conflict (n, name) do update set data = excluded.data

-- name: drop_dump
delete from dumps where n = :n and name = :name

-- name: find_dump
select d.data from dumps as d join instances as i on i.n = d.n and i.deleted_at is null where d.n = ? and d.name = ?

-- name: keep_token
-- Nothing when the name, or the token itself, is there already.
insert or ignore into tokens (hash, tenant, name, grants, agents, trusted, created_at, expires_at)
values (?, ?, ?, ?, ?, ?, ?, ?)
returning hash

-- name: find_token
select hash, name, tenant, grants, agents, trusted, created_at, expires_at from tokens where hash = ?

-- name: all_tokens
-- A null tenant means every one.
select hash, name, tenant, grants, agents, trusted, created_at, expires_at
  from tokens
 where :tenant is null or tenant = :tenant
 order by tenant, name

-- name: drop_token
delete from tokens where tenant = ? and name = ? returning name

-- name: touch_blob
-- Content that is already here: its grace period begins anew.
update blobs set touched_at = :now where tenant = :tenant and hash = :hash and complete = 1 returning blob

-- name: begin_blob
-- Content about to arrive in chunks.
insert into blobs (tenant, hash, bytes, complete, touched_at) values (?, ?, ?, 0, ?) returning blob

-- name: keep_blob_chunk
-- One piece of it.
insert into blob_chunks (blob, i, data) values (?, ?, ?)

-- name: complete_blob
-- All pieces are here. No row when somebody else completed the same content first.
update or ignore blobs set complete = 1, touched_at = :now where blob = :blob returning blob

-- name: drop_blob
-- Content that is not needed.
delete from blobs where blob = ?

-- name: find_blob
-- Complete content by hash.
select blob, bytes from blobs where tenant = ? and hash = ? and complete = 1

-- name: read_blob
-- Its pieces in order.
select data from blob_chunks where blob = ? order by i

-- name: unreferenced_blobs
-- Content nobody refers to and nobody has touched since a moment, a page at a time.
select blob from blobs as b
 where blob > :after and touched_at < :before and not exists (select 1 from blob_references as r where r.blob = b.blob)
 order by blob
 limit :limit

-- name: info
-- Sizes.
select (select count(*) from instances where deleted_at is null), (select count(*) from log), (select count(*) from workers)

-- name: check_instances
-- What a check needs of each instance, a page at a time.
select n, tenant, kind, id, head, reserved, epoch, forked_from, fork_offset, deleted_at, bytes from instances where n > ? order by n limit ?

-- name: check_instance
-- The same of one.
select n, tenant, kind, id, head, reserved, epoch, forked_from, fork_offset, deleted_at, bytes from instances where n = ?

-- name: check_offset
-- Whether a row at which a fork parts is there.
select exists (select 1 from log where n = ? and ordinal = ?)

-- name: check_rows
-- One instance's whole log.
select ordinal, prev, epoch, merged_from, projection, checksum, records, chunks from log where n = ? order by ordinal

-- name: check_beyond
-- Rows of other tables that name an ordinal the log does not have.
select 'admissions', key from admissions as a
 where n = :n and not exists (select 1 from log where n = :n and ordinal = a.ordinal)
union all
select 'producers', id from producers as p
 where n = :n and not exists (select 1 from log where n = :n and ordinal = p.ordinal)
union all
select 'snapshots', cast(ordinal as text) from snapshots as s where n = :n and ordinal > :head
union all
select 'checkpoints', cast(ordinal as text) from checkpoints as c where n = :n and ordinal > :head

-- name: check_orphans
-- Log rows of no instance.
select distinct n from log where n not in (select n from instances)

-- name: check_blobs
-- Every content, a page at a time.
select blob, tenant, hash, bytes from blobs where complete = 1 and blob > ? order by blob limit ?
