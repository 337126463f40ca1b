-- name: call_add
-- Record a call; one that is known stays as it is, an orphan gets its name.
INSERT INTO calls (seq, call_id, function_id, app_id, verb, method, parent_call, parent_position, created_at, accepted, total)
VALUES (:seq, :call_id, :function_id, :app_id, :verb, :method, :parent_call, :parent_position, :now, :accepted, :total)
ON CONFLICT (call_id) DO UPDATE SET function_id = excluded.function_id, app_id = excluded.app_id, verb = excluded.verb,
  method = excluded.method, parent_call = excluded.parent_call, parent_position = excluded.parent_position,
  accepted = excluded.accepted, total = excluded.total, done_at = NULL, status = '' WHERE status = 'orphan';

-- name: call_add_done
-- Record a call of one input that is over already.
INSERT OR IGNORE INTO calls (seq, call_id, function_id, app_id, verb, method, parent_call, parent_position, created_at,
  accepted, total, succeeded, failed, done_at, status)
VALUES (:seq, :call_id, :function_id, :app_id, :verb, :method, :parent_call, :parent_position, :now,
  1, 1, :succeeded, :failed, :done_at, :status);

-- name: call_orphan
-- Outputs came for a call that was never written down: its caller may come back for them.
INSERT OR IGNORE INTO calls (seq, call_id, function_id, app_id, verb, created_at, done_at, status)
VALUES (:seq, :call_id, :function_id, :app_id, '', :now, :now, 'orphan');

-- name: call_by_id
-- One call.
SELECT * FROM calls WHERE call_id = :call_id;

-- name: call_accepted
-- More inputs of a call are kept; with a total these were the last.
UPDATE calls SET accepted = :accepted, total = :total WHERE call_id = :call_id AND done_at IS NULL;

-- name: call_progress
-- So many inputs of a call have ended.
UPDATE calls SET succeeded = :succeeded, failed = :failed WHERE call_id = :call_id;

-- name: call_caller_gone
-- The caller will not send the rest: what was accepted is all there is.
UPDATE calls SET total = :total, caller_gone = 1 WHERE call_id = :call_id AND done_at IS NULL;

-- name: call_done
-- A call is over.
UPDATE calls SET accepted = :accepted, total = :accepted, succeeded = :succeeded, failed = :failed, done_at = :now,
  status = :status, error = :error
WHERE call_id = :call_id AND done_at IS NULL;

-- name: inputs_cancel_of_app
-- Open inputs of a stopped app end with it.
UPDATE calls SET total = accepted, failed = accepted - succeeded, done_at = :now, status = 'cancelled', error = :error
WHERE app_id = :app_id AND done_at IS NULL;

-- name: calls_open_counts
-- What a starting server takes up: open calls and inputs of each function.
SELECT function_id, app_id, count(*) AS calls, sum(accepted - succeeded - failed) AS inputs, min(seq) AS first
FROM calls WHERE done_at IS NULL GROUP BY function_id;

-- name: calls_last_seq
-- The newest call's number.
SELECT coalesce(max(seq), 0) AS seq FROM calls;

-- name: outputs_last_number
-- The newest output's number.
SELECT coalesce(max(number), 0) AS number FROM outputs;

-- name: calls_window
-- The next open calls of a function, oldest first.
SELECT * FROM calls WHERE function_id = :function_id AND done_at IS NULL AND seq > :after ORDER BY seq LIMIT :limit;

-- name: calls_unended
-- Open calls whose callers had not sent all inputs.
SELECT call_id, function_id FROM calls WHERE done_at IS NULL AND total IS NULL;

-- name: calls_open_children
-- Open calls that inputs of a call have made.
SELECT * FROM calls WHERE parent_call = :call_id AND parent_call <> '' AND done_at IS NULL;

-- name: calls_children
-- Calls that inputs of a call have made, oldest first.
SELECT * FROM calls WHERE parent_call = :call_id AND parent_call <> '' ORDER BY seq LIMIT :limit;

-- name: calls_recent
-- Calls of an environment ('' is all) and an owner ('' is all), newest first. state: '' is all, else open or done.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner
FROM calls c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
WHERE c.status <> 'orphan' AND (:environment = '' OR a.environment = :environment) AND (:owner = '' OR a.owner = :owner)
  AND (:state = '' OR (:state = 'done') = (c.done_at IS NOT NULL))
  AND (:before = 0 OR c.seq < :before)
ORDER BY c.seq DESC LIMIT :limit;

-- name: calls_recent_of_app
-- Calls of an app, newest first.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner
FROM calls c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
WHERE c.app_id = :app_id AND c.status <> 'orphan' AND (:state = '' OR (:state = 'done') = (c.done_at IS NOT NULL))
  AND (:before = 0 OR c.seq < :before)
ORDER BY c.seq DESC LIMIT :limit;

-- name: calls_recent_of_function
-- Calls of a function, newest first.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner
FROM calls c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
WHERE c.function_id = :function_id AND c.status <> 'orphan' AND (:state = '' OR (:state = 'done') = (c.done_at IS NOT NULL))
  AND (:before = 0 OR c.seq < :before)
ORDER BY c.seq DESC LIMIT :limit;

-- name: calls_open_of_function
-- Open calls of a function, newest first: quick however many others there are.
SELECT c.*, f.name AS function, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner
FROM calls c JOIN apps a ON a.app_id = c.app_id LEFT JOIN functions f ON f.function_id = c.function_id
WHERE c.function_id = :function_id AND c.done_at IS NULL AND (:before = 0 OR c.seq < :before)
ORDER BY c.seq DESC LIMIT :limit;

-- name: chunk_add
-- Keep a chunk of inputs; one that is known stays as it is.
INSERT OR IGNORE INTO chunks (call_id, start, count, flags, sizes, body)
VALUES (:call_id, :start, :count, :flags, :sizes, :body);

-- name: chunk_at
-- The chunk that holds a position of a call.
SELECT start, count, flags, sizes, body FROM chunks
WHERE call_id = :call_id AND start <= :position AND start + count > :position ORDER BY start DESC LIMIT 1;

-- name: chunks_done
-- Arguments of inputs up to a position are needed no more.
DELETE FROM chunks WHERE call_id = :call_id AND start < :upto AND start + count <= :upto;

-- name: chunks_of_call_drop
-- A call is over: its arguments are needed no more.
DELETE FROM chunks WHERE call_id = :call_id;

-- name: chunks_of_call_bound
-- A call is over and inputs of it failed: its arguments are kept for another try, unless they are too large.
DELETE FROM chunks WHERE call_id = :call_id
  AND (SELECT sum(length(body)) FROM chunks WHERE call_id = :call_id) > :most;

-- name: chunks_references
-- The large arguments of a call's inputs.
SELECT start, body FROM chunks WHERE call_id = :call_id AND flags & 1;

-- name: chunks_left_over
-- Calls that ended with their app, or that nobody can try again because it has ended, and still have arguments here.
SELECT DISTINCT ch.call_id FROM chunks ch JOIN calls c ON c.call_id = ch.call_id JOIN apps a ON a.app_id = c.app_id
WHERE c.done_at IS NOT NULL AND (c.status <> 'failed' OR a.state = 'stopped') LIMIT :limit;

-- name: output_add
-- Keep what came of inputs.
INSERT INTO outputs (number, call_id, start, count, kind, first, flags, head, body, at)
VALUES (:number, :call_id, :start, :count, :kind, :first, :flags, :head, :body, :now);

-- name: outputs_after
-- What came of a call's inputs after a number, in order.
SELECT number, start, count, kind, first, head, body FROM outputs
WHERE call_id = :call_id AND number > :after ORDER BY number LIMIT :limit;

-- name: outputs_index
-- Which inputs of a call have ended, and how far their generators came.
SELECT number, start, count, kind, first, CASE WHEN kind = 2 THEN x'' ELSE head END AS head FROM outputs
WHERE call_id = :call_id AND number > :after ORDER BY number LIMIT :limit;

-- name: outputs_rest
-- How inputs of a call ended that have no output of their own.
SELECT head, body FROM outputs WHERE call_id = :call_id AND kind = 3;

-- name: output_of_input
-- What came of one input: its values or its end.
SELECT number, start, count, kind, first, head, body FROM outputs
WHERE call_id = :call_id AND kind < 2 AND start <= :position AND start + count > :position ORDER BY number;

-- name: outputs_failed
-- The last inputs of a call that did not return a value.
SELECT start AS position, head FROM outputs WHERE call_id = :call_id AND kind = 1 ORDER BY number DESC LIMIT :limit;

-- name: items_drop
-- What a generator gave has been read by its caller.
DELETE FROM outputs WHERE call_id = :call_id AND kind = 2;

-- name: attempt_put
-- An input is tried again.
INSERT INTO attempts (call_id, position, attempt, retries, failures)
VALUES (:call_id, :position, :attempt, :retries, :failures)
ON CONFLICT (call_id, position) DO UPDATE SET attempt = excluded.attempt, retries = excluded.retries,
  failures = excluded.failures;

-- name: attempts_of_call
-- Inputs of a call that are not at their first attempt.
SELECT position, attempt, retries, failures FROM attempts WHERE call_id = :call_id;

-- name: attempts_of_function
-- The same for all open calls of a function.
SELECT a.call_id, a.position, a.attempt, a.retries, a.failures
FROM attempts a JOIN calls c ON c.call_id = a.call_id WHERE c.function_id = :function_id AND c.done_at IS NULL;

-- name: attempts_drop
-- A call is over: nobody counts its attempts any more.
DELETE FROM attempts WHERE call_id = :call_id;

-- name: calls_expiring
-- Calls whose results go next, oldest first.
SELECT call_id FROM calls WHERE done_at < :before AND status <> 'expired' ORDER BY done_at LIMIT :limit;

-- name: outputs_large
-- The large results of a call, so that their files can go with them.
SELECT body FROM outputs WHERE call_id = :call_id AND flags & 1;

-- name: outputs_drop
-- Results of a call that were kept for their time.
DELETE FROM outputs WHERE call_id = :call_id;

-- name: call_expire
-- A call's results are gone; the row stays for a while, to say that there were some.
UPDATE calls SET status = 'expired', error = NULL WHERE call_id = :call_id;

-- name: calls_forget
-- Rows of calls that expired long ago.
DELETE FROM calls WHERE done_at < :before AND status = 'expired';

-- name: chunks_all_large
-- The large arguments of all calls.
SELECT body FROM chunks WHERE flags & 1;

-- name: outputs_all_large
-- The large results of all calls.
SELECT body FROM outputs WHERE flags & 1;
