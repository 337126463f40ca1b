-- name: dict_set
-- Set an entry.
INSERT INTO dict_entries (dict_id, used_at, large, length, key, value)
VALUES (:dict_id, :now, :large, :length, :key, :value)
ON CONFLICT (dict_id, key) DO UPDATE
SET used_at = excluded.used_at, large = excluded.large, length = excluded.length, value = excluded.value;

-- name: dict_add
-- Set an entry unless there is one of this key.
INSERT INTO dict_entries (dict_id, used_at, large, length, key, value)
VALUES (:dict_id, :now, :large, :length, :key, :value)
ON CONFLICT (dict_id, key) DO NOTHING;

-- name: dict_done
-- Remember that a request to a dict was carried out, and how many rows its last statement changed.
INSERT INTO shared_requests (request, object_id, at, count) VALUES (:request, :dict_id, :now, changes());

-- name: dict_pop_answer
-- Keep the value that a pop returns as the answer of its request.
INSERT INTO shared_requests (request, object_id, at, count, large, length, value)
SELECT :request, :dict_id, :now, 1, large, length, value FROM dict_entries WHERE dict_id = :dict_id AND key = :key;

-- name: dict_remove
-- Remove an entry.
DELETE FROM dict_entries WHERE dict_id = :dict_id AND key = :key;

-- name: dict_get
-- The value of a key.
SELECT used_at, large, length, value FROM dict_entries WHERE dict_id = :dict_id AND key = :key;

-- name: dict_has
-- Whether there is such a key.
SELECT used_at FROM dict_entries WHERE dict_id = :dict_id AND key = :key;

-- name: dict_touch
-- An entry was used.
UPDATE dict_entries SET used_at = :now WHERE dict_id = :dict_id AND key = :key;

-- name: dict_count
-- How many entries a dict has.
SELECT count(*) AS count FROM dict_entries WHERE dict_id = :dict_id;

-- name: dict_clear
-- Remove all entries.
DELETE FROM dict_entries WHERE dict_id = :dict_id;

-- name: dict_sizes
-- The next entries, and how large each is.
SELECT entry, length(key) AS key_size, length(value) AS value_size FROM dict_entries
WHERE dict_id = :dict_id AND entry > :after ORDER BY entry LIMIT :limit;

-- name: dict_entries
-- Entries between two, keys with values.
SELECT entry, large, length, key, value FROM dict_entries
WHERE dict_id = :dict_id AND entry > :after AND entry <= :last ORDER BY entry;

-- name: dict_keys
-- Entries between two, keys alone.
SELECT entry, key FROM dict_entries WHERE dict_id = :dict_id AND entry > :after AND entry <= :last ORDER BY entry;

-- name: dict_unused
-- Remove entries that nobody has used for long.
DELETE FROM dict_entries WHERE used_at < :before;

-- name: dict_garbage_old
-- Blobs that nothing has referred to for a while.
SELECT blob FROM dict_garbage WHERE at < :before;

-- name: dict_garbage_drop
-- A blob was deleted.
DELETE FROM dict_garbage WHERE blob = :blob;

-- name: dict_blobs
-- Every blob that must stay: values, and what may be asked for once more.
SELECT large AS blob FROM dict_entries WHERE large <> '' UNION SELECT blob FROM dict_garbage;

-- name: dict_ids
-- Dicts that hold something.
SELECT DISTINCT dict_id AS object_id FROM dict_entries;

-- name: queue_add
-- Add an item.
INSERT INTO queue_items (queue_id, partition, number, expires_at, value)
VALUES (:queue_id, :partition, :number, :expires_at, :value);

-- name: queue_put_done
-- Remember that a put was carried out.
INSERT INTO shared_requests (request, object_id, at) VALUES (:request, :queue_id, :now);

-- name: queue_taken
-- Remember what a get took: its answer, until its caller has it.
INSERT INTO shared_requests (request, object_id, at, taken, partition, start, stop)
VALUES (:request, :queue_id, :now, 1, :partition, :start, :stop);

-- name: queue_takes
-- Every get whose answer may not have arrived.
SELECT request, object_id, at, partition, start, stop FROM shared_requests WHERE taken = 1;

-- name: queue_ranges
-- What a queue holds, as ranges of numbers without a gap.
SELECT partition, min(number) AS start, max(number) + 1 AS stop
FROM (
  SELECT partition, number, number - row_number() OVER (PARTITION BY partition ORDER BY number) AS island
  FROM queue_items WHERE queue_id = :queue_id
)
GROUP BY partition, island ORDER BY partition, start;

-- name: queue_ends
-- When each partition of a queue expires: with its last item.
SELECT i.partition, i.expires_at
FROM (SELECT partition, max(number) AS number FROM queue_items WHERE queue_id = :queue_id GROUP BY partition) AS l
JOIN queue_items AS i ON i.queue_id = :queue_id AND i.partition = l.partition AND i.number = l.number;

-- name: queue_values
-- Items of a range.
SELECT number, value FROM queue_items
WHERE queue_id = :queue_id AND partition = :partition AND number >= :start AND number < :stop
ORDER BY number LIMIT :limit;

-- name: queue_drop
-- Items of a range are of no more use.
DELETE FROM queue_items
WHERE queue_id = :queue_id AND partition = :partition AND number >= :start AND number < :stop;

-- name: queue_drop_all
-- A queue is deleted.
DELETE FROM queue_items WHERE queue_id = :queue_id;

-- name: queue_ids
-- Queues that hold something.
SELECT DISTINCT queue_id AS object_id FROM queue_items;

-- name: queue_expired
-- Queues with a partition that may have had its time.
SELECT DISTINCT i.queue_id AS object_id
FROM (SELECT queue_id, partition, max(number) AS number FROM queue_items GROUP BY queue_id, partition) AS l
JOIN queue_items AS i ON i.queue_id = l.queue_id AND i.partition = l.partition AND i.number = l.number
WHERE i.expires_at < :now;

-- name: shared_request
-- A request that was carried out.
SELECT object_id, count, large, length, value FROM shared_requests WHERE request = :request;

-- name: shared_request_drop
-- The answer of a request has arrived.
DELETE FROM shared_requests WHERE request = :request;

-- name: shared_requests_of_drop
-- A dict or queue is deleted.
DELETE FROM shared_requests WHERE object_id = :object_id;

-- name: shared_requests_old
-- Nobody asks for the answer any more. What gets took is looked after apart.
DELETE FROM shared_requests WHERE at < :before AND taken = 0;
