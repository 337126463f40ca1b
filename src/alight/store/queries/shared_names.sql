-- name: shared_add
-- Record a new dict or queue.
INSERT INTO shared_objects (object_id, kind, name, environment, owner, created_at)
VALUES (:object_id, :kind, :name, :environment, :owner, :now);

-- name: shared_by_name
-- The dict or queue of this name in an environment.
SELECT * FROM shared_objects WHERE kind = :kind AND environment = :environment AND name = :name;

-- name: shared_by_id
-- The dict or queue of this id.
SELECT * FROM shared_objects WHERE object_id = :object_id AND kind = :kind;

-- name: shared_in
-- Named ones of an environment, newest first; limit -1 is all.
SELECT * FROM shared_objects WHERE kind = :kind AND environment = :environment AND name IS NOT NULL
ORDER BY created_at DESC, object_id DESC LIMIT :limit;

-- name: shared_all
-- Every dict and queue there is.
SELECT object_id FROM shared_objects WHERE kind = :kind;

-- name: shared_delete
-- Forget a dict or queue.
DELETE FROM shared_objects WHERE object_id = :object_id;

-- name: ephemeral_add
-- Remember that an object lives while it is wanted.
INSERT INTO ephemerals (object_id, kind, environment, owner, seen_at)
VALUES (:object_id, :kind, :environment, :owner, :now);

-- name: ephemeral_by_id
-- One that lives while it is wanted.
SELECT * FROM ephemerals WHERE object_id = :object_id;

-- name: ephemeral_seen
-- Somebody still wants it.
UPDATE ephemerals SET seen_at = :now WHERE object_id = :object_id;

-- name: ephemerals_seen
-- Nobody could say anything while the server was away.
UPDATE ephemerals SET seen_at = :now;

-- name: ephemerals_unseen
-- Those that nobody has wanted since a moment.
SELECT * FROM ephemerals WHERE seen_at < :before;

-- name: ephemeral_delete
-- It is gone.
DELETE FROM ephemerals WHERE object_id = :object_id;
