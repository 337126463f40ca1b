-- name: call_add
-- Record a call; one that is known stays as it is.
INSERT OR IGNORE INTO calls (call_id, function_id, app_id, method, parent_input, created_at)
VALUES (:call_id, :function_id, :app_id, :method, :parent_input, :now);

-- name: input_add
-- Record an input; one that is known stays as it is.
INSERT OR IGNORE INTO inputs (input_id, call_id, position, function_id, app_id, state, body, blob, size, created_at)
VALUES (:input_id, :call_id, :position, :function_id, :app_id, 'waiting', :body, :blob, :size, :now);

-- name: input_by_id
-- An input with its result, if there is one.
SELECT * FROM inputs WHERE input_id = :input_id;

-- name: input_of_call
-- The input at a position of a call, with its result.
SELECT * FROM inputs WHERE call_id = :call_id AND position = :position;

-- name: input_body
-- The arguments of an input.
SELECT body FROM inputs WHERE input_id = :input_id;

-- name: inputs_unfinished
-- What a starting server takes up again, oldest first; arguments stay in the store.
SELECT i.input_id, i.call_id, i.position, i.function_id, i.app_id, i.attempt, i.retries, i.failures, i.blob, i.size,
  i.created_at, c.method, c.parent_input
FROM inputs i LEFT JOIN calls c ON c.call_id = i.call_id
WHERE i.state <> 'done' ORDER BY i.created_at, i.input_id;

-- name: input_again
-- An input is tried again.
UPDATE inputs SET attempt = :attempt, retries = :retries, failures = :failures
WHERE input_id = :input_id AND state <> 'done';

-- name: input_done
-- The result of an input, once: a second one changes nothing.
UPDATE inputs SET state = 'done', attempt = :attempt, done_at = :now, status = :status, container_id = :container_id,
  result = :result, result_blob = :result_blob, result_size = :result_size, failure = :failure, error = :error,
  log_offset = :log_offset, body = NULL
WHERE input_id = :input_id AND state <> 'done';

-- name: orphan_done
-- The result of an input that a killed server never wrote down; whoever sends the call again finds it.
INSERT OR IGNORE INTO inputs (input_id, call_id, function_id, app_id, state, attempt, created_at, done_at, status,
  container_id, result, result_blob, result_size, failure, error, log_offset)
VALUES (:input_id, :input_id, :function_id, :app_id, 'done', :attempt, :now, :now, :status,
  :container_id, :result, :result_blob, :result_size, :failure, :error, :log_offset);

-- name: orphan_claim
-- The caller of an orphan came back: the call has its name now.
UPDATE inputs SET call_id = :call_id WHERE input_id = :input_id AND call_id = :input_id;

-- name: inputs_cancel_of_app
-- Inputs of a stopped app end with it.
UPDATE inputs SET state = 'done', done_at = :now, status = 'cancelled', error = :error, body = NULL
WHERE app_id = :app_id AND state <> 'done';

-- name: results_expiring
-- The large results that go next, so that their files can go after them.
SELECT result_blob FROM inputs
WHERE state = 'done' AND done_at < :before AND status <> 'expired' AND result_blob <> '';

-- name: results_expire
-- Old results go; the row stays for a while, to say that there was one.
UPDATE inputs SET result = NULL, result_blob = '', failure = NULL, status = 'expired'
WHERE state = 'done' AND done_at < :before AND status <> 'expired';

-- name: inputs_forget
-- Rows of results that expired long ago.
DELETE FROM inputs WHERE state = 'done' AND done_at < :before AND status = 'expired';

-- name: blob_ref_add
-- Note who needs a blob.
INSERT OR IGNORE INTO blob_refs (digest, holder, created_at) VALUES (:digest, :holder, :now);

-- name: blob_refs_drop
-- A holder needs its blobs no longer.
DELETE FROM blob_refs WHERE holder = :holder;
