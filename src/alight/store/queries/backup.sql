-- name: volumes_all
-- The volumes of all environments.
SELECT volume_id, name, environment, size_limit FROM volumes ORDER BY environment, name;

-- name: secrets_of_keys
-- How many secrets each key has sealed.
SELECT sealed_by, count(*) AS number FROM secrets GROUP BY sealed_by;

-- name: containers_left_behind
-- Containers of the machines that a restored state comes from: they are none of ours.
UPDATE containers SET state = 'ended', ended_at = :now, why = :why WHERE state <> 'ended';
