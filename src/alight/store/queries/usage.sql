-- name: usage_add
-- Amounts of one hour more.
INSERT INTO usage_hours (hour, app_id, function_id, owner, environment, resource, state, amount)
VALUES (:hour, :app_id, :function_id, :owner, :environment, :resource, :state, :amount)
ON CONFLICT (hour, app_id, function_id, owner, environment, resource, state)
DO UPDATE SET amount = amount + excluded.amount;

-- name: usage_of_container
-- Until when a container has been accounted for, and what it had in all.
INSERT INTO container_usage (container_id, until, busy, idle, starting, cores, gib, gpu, gpus, seen)
VALUES (:container_id, :until, :busy, :idle, :starting, :cores, :gib, :gpu, :gpus, :seen)
ON CONFLICT (container_id) DO UPDATE SET until = excluded.until, busy = excluded.busy, idle = excluded.idle,
  starting = excluded.starting, seen = excluded.seen;

-- name: usage_of_call
-- What a call had more.
INSERT INTO call_usage (call_id, gpu, seconds, cores, gib, gpu_seconds, joules)
VALUES (:call_id, :gpu, :seconds, :cores, :gib, :gpu_seconds, :joules)
ON CONFLICT (call_id, gpu) DO UPDATE SET seconds = seconds + excluded.seconds, cores = cores + excluded.cores,
  gib = gib + excluded.gib, gpu_seconds = gpu_seconds + excluded.gpu_seconds, joules = joules + excluded.joules;

-- name: usage_open
-- Containers whose time is not all accounted for: those that live, and those whose end was written down and then no more.
SELECT c.*, f.spec, a.owner, a.environment, u.until, u.busy, u.idle, u.starting, u.cores, u.gib, u.gpu, u.gpus AS gpu_count,
  u.seen
FROM containers c LEFT JOIN container_usage u ON u.container_id = c.container_id
LEFT JOIN functions f ON f.function_id = c.function_id LEFT JOIN apps a ON a.app_id = c.app_id
WHERE c.created_at >= :since AND (c.state <> 'ended' OR u.until IS NULL OR u.until < c.ended_at - 0.001);

-- name: usage_between
-- Amounts of some hours (the last one not), with the names that people know. Empty words mean all.
SELECT u.*, coalesce(nullif(a.name, ''), a.description, v.name, '') AS app, coalesce(a.tags, '{}') AS tags,
  coalesce(f.name, '') AS function
FROM usage_hours u LEFT JOIN apps a ON a.app_id = u.app_id LEFT JOIN functions f ON f.function_id = u.function_id
LEFT JOIN volumes v ON v.volume_id = u.app_id
WHERE u.hour >= :first AND u.hour < :stop AND (:environment = '' OR u.environment = :environment)
  AND (:owner = '' OR u.owner = :owner)
  AND (:app = '' OR u.app_id = :app OR a.name = :app OR a.description = :app);

-- name: usage_of_app
-- All that an app ever had.
SELECT resource, state, sum(amount) AS amount FROM usage_hours WHERE app_id = :app_id GROUP BY resource, state;

-- name: usage_since
-- What apps and users had since an hour.
SELECT u.app_id, u.owner, u.environment, coalesce(nullif(a.name, ''), a.description, '') AS app, u.resource,
  sum(u.amount) AS amount
FROM usage_hours u LEFT JOIN apps a ON a.app_id = u.app_id WHERE u.hour >= :first
GROUP BY u.app_id, u.owner, u.environment, u.resource;

-- name: usage_by_call
-- What a call had.
SELECT * FROM call_usage WHERE call_id = :call_id;

-- name: usage_forget_hours
-- Amounts of long ago.
DELETE FROM usage_hours WHERE hour < :before;

-- name: usage_forget_containers
-- Of containers that are forgotten.
DELETE FROM container_usage WHERE container_id NOT IN (SELECT container_id FROM containers);

-- name: usage_forget_calls
-- Of calls that are forgotten.
DELETE FROM call_usage WHERE call_id NOT IN (SELECT call_id FROM calls);

-- name: budget_set
-- A budget, or another one in its place.
INSERT INTO budgets (kind, environment, name, cost, gpu_seconds, stop, set_by, set_at)
VALUES (:kind, :environment, :name, :cost, :gpu_seconds, :stop, :set_by, :now)
ON CONFLICT (kind, environment, name) DO UPDATE SET cost = excluded.cost, gpu_seconds = excluded.gpu_seconds,
  stop = excluded.stop, set_by = excluded.set_by, set_at = excluded.set_at;

-- name: budget_clear
-- No budget any more.
DELETE FROM budgets WHERE kind = :kind AND environment = :environment AND name = :name;

-- name: budgets_all
-- Every budget.
SELECT * FROM budgets ORDER BY kind, environment, name;

-- name: budgets_forget
-- Those of runs that are over.
DELETE FROM budgets WHERE kind = 'run' AND name NOT IN (SELECT app_id FROM apps WHERE state <> 'stopped');

-- name: usage_stored_last
-- The last hour in which volumes were counted.
SELECT max(hour) AS hour FROM usage_hours WHERE resource = 'storage';
