-- name: node_seen
-- A machine is connected.
INSERT INTO nodes (node_id, hostname, version, hello, first_seen, last_seen)
VALUES (:node_id, :hostname, :version, :hello, :now, :now)
ON CONFLICT (node_id) DO UPDATE SET hostname = excluded.hostname, version = excluded.version, hello = excluded.hello,
  last_seen = excluded.last_seen;

-- name: container_add
-- A container is about to start.
INSERT OR IGNORE INTO containers (container_id, app_id, function_id, node_id, image_id, state, gpus, memory, created_at,
  function_version, cluster, rank, cluster_size)
VALUES (:container_id, :app_id, :function_id, :node_id, :image_id, 'starting', :gpus, :memory, :now, :function_version,
  :cluster, :rank, :cluster_size);

-- name: container_state
-- A container is ready.
UPDATE containers SET state = :state WHERE container_id = :container_id AND state <> 'ended';

-- name: container_ended
-- A container is gone, and why.
UPDATE containers SET state = 'ended', ended_at = :now, why = :why, exit_code = :exit_code, signal = :signal
WHERE container_id = :container_id AND state <> 'ended';

-- name: containers_alive
-- Containers that had not ended when last heard of.
SELECT * FROM containers WHERE state <> 'ended';

-- name: container_by_id
-- One container, ended ones too.
SELECT * FROM containers WHERE container_id = :container_id;

-- name: containers_of_cluster
-- The containers that work on inputs together, by rank; ended ones too.
SELECT * FROM containers WHERE cluster = :cluster ORDER BY rank;

-- name: containers_forget
-- Containers that ended long ago; returns nothing, their logs go by age, too.
DELETE FROM containers WHERE state = 'ended' AND ended_at < :before;

-- name: image_add
-- Give a recipe its id, once for each Python it may be built with.
INSERT OR IGNORE INTO images (image_id, digest, python_version, spec, created_at, last_used_at)
VALUES (:image_id, :digest, :python_version, :spec, :now, :now);

-- name: image_by_digest
-- The image of a recipe.
SELECT * FROM images WHERE digest = :digest AND python_version = :python_version;

-- name: image_by_id
-- The recipe of an image.
SELECT * FROM images WHERE image_id = :image_id;

-- name: image_used
-- An image was asked for.
UPDATE images SET last_used_at = :now WHERE image_id = :image_id;
