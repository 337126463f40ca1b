-- name: volume_add
-- Record a new volume.
INSERT INTO volumes (volume_id, name, environment, owner, format, created_at)
VALUES (:volume_id, :name, :environment, :owner, :format, :now);

-- name: volume_by_name
-- The volume of this name in an environment.
SELECT * FROM volumes WHERE environment = :environment AND name = :name;

-- name: volume_by_id
-- The volume of this id.
SELECT * FROM volumes WHERE volume_id = :volume_id;

-- name: volumes_in
-- Named volumes of an environment with their last commits, newest first; limit -1 is all. Nameless ones begin with ":".
SELECT volumes.*,
  (SELECT max(committed_at) FROM volume_versions v WHERE v.volume_id = volumes.volume_id) AS committed_at
FROM volumes WHERE environment = :environment AND name NOT LIKE ':%'
ORDER BY created_at DESC, volume_id DESC LIMIT :limit;

-- name: volume_delete
-- Forget a volume.
DELETE FROM volumes WHERE volume_id = :volume_id;

-- name: volume_versions_delete
-- Forget the versions of a volume.
DELETE FROM volume_versions WHERE volume_id = :volume_id;

-- name: volume_rename
-- Give a volume another name.
UPDATE volumes SET name = :name WHERE volume_id = :volume_id;

-- name: volume_commit
-- Count one more version of a volume's content.
UPDATE volumes SET version = version + 1 WHERE volume_id = :volume_id;

-- name: volume_version_add
-- Record the newest version: when it was committed, by whom, and what it changed.
INSERT INTO volume_versions
  (volume_id, version, committed_at, committed_by, kind, files, size, removed, container_id, app, function)
SELECT volume_id, version, :now, :by, :kind, :files, :size, :removed, :container, :app, :function
FROM volumes WHERE volume_id = :volume_id;

-- name: volume_versions_forget
-- Forget versions that are so many back that nobody looks for them.
DELETE FROM volume_versions WHERE volume_id = :volume_id
  AND version <= (SELECT version FROM volumes WHERE volume_id = :volume_id) - :most;

-- name: volume_versions_of
-- Versions of a volume, newest first; limit -1 is all.
SELECT * FROM volume_versions WHERE volume_id = :volume_id ORDER BY version DESC LIMIT :limit;

-- name: volume_limit
-- How many bytes a volume may hold; 0: as many as its disk has.
UPDATE volumes SET size_limit = :size WHERE volume_id = :volume_id;

-- name: volume_origin
-- The names of an app and of its function, whether they live or not.
SELECT a.name AS app, f.name AS function FROM apps a
LEFT JOIN functions f ON f.function_id = :function_id WHERE a.app_id = :app_id;
