-- name: schedules_all
-- Every schedule that is kept.
SELECT * FROM schedules;

-- name: schedule_put
-- A schedule is new, or counts from a new deploy. What is known of its last run stays, and that it is paused.
INSERT INTO schedules (function_id, app_id, schedule, version, since, done)
VALUES (:function_id, :app_id, :schedule, :version, :since, :done)
ON CONFLICT (function_id) DO UPDATE SET schedule = excluded.schedule, version = excluded.version, since = excluded.since,
  done = excluded.done;

-- name: schedule_drop
-- A function has no schedule any more.
DELETE FROM schedules WHERE function_id = :function_id;

-- name: schedule_pause
-- No runs until it is resumed; or runs again, from a moment on.
UPDATE schedules SET paused = :paused, done = :done WHERE function_id = :function_id;

-- name: schedule_skip
-- Runs up to a moment will not be made up.
UPDATE schedules SET done = :done WHERE function_id = :function_id AND done = :was;

-- name: schedule_run
-- A run begins, which nobody else has begun.
UPDATE schedules SET done = :done, call_id = :call_id, due = :due, run_at = :now, begun = 0, status = '', error = ''
WHERE function_id = :function_id AND done = :was AND call_id = :last;

-- name: schedule_begun
-- The call of a run was accepted.
UPDATE schedules SET begun = 1 WHERE function_id = :function_id AND call_id = :call_id;

-- name: schedule_ended
-- What came of the last run.
UPDATE schedules SET status = :status, error = :error, begun = 1 WHERE function_id = :function_id AND call_id = :call_id;
