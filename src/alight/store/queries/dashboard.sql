-- name: web_session_add
-- Somebody logged in.
INSERT OR REPLACE INTO web_sessions (session, kind, owner, token_id, created_at, expires_at)
VALUES (:session, :kind, :owner, :token_id, :now, :expires_at);

-- name: web_session
-- The session of a browser.
SELECT * FROM web_sessions WHERE session = :session;

-- name: web_session_delete
-- Somebody logged out.
DELETE FROM web_sessions WHERE session = :session;

-- name: web_sessions_over
-- Sessions that have had their time.
DELETE FROM web_sessions WHERE expires_at <= :now;

-- name: audit_add
-- Somebody changed something, or tried to.
INSERT INTO audit (at, who, action, target, detail, app_owner, problem)
VALUES (:now, :who, :action, :target, :detail, :app_owner, :problem);

-- name: audit_last
-- What was changed, newest first; an owner ('' is all) sees their own doing and what was done to what is theirs.
SELECT at, who, action, target, detail, problem FROM audit
WHERE (:owner = '' OR who = :owner OR app_owner = :owner) ORDER BY number DESC LIMIT :limit;

-- name: audit_forget
-- What was changed long ago.
DELETE FROM audit WHERE at < :before;

-- name: function_shown
-- One function with the app that it belongs to, stopped ones too.
SELECT f.*, coalesce(nullif(a.name, ''), a.description) AS app, a.environment, a.owner, a.state
FROM functions f JOIN apps a ON a.app_id = f.app_id WHERE f.function_id = :function_id;

-- name: function_and_variants
-- A function of an app with its variants (`name#…`).
SELECT function_id, name FROM functions WHERE app_id = :app_id AND (name = :name OR substr(name, 1, length(:name) + 1) = :name || '#');

-- name: calls_timed
-- The newest calls of some functions (a JSON list of ids) that began since a moment: how long each took, how it ended.
SELECT created_at, done_at, accepted, succeeded, failed FROM calls
WHERE function_id IN (SELECT value FROM json_each(:functions)) AND status <> 'orphan' AND created_at >= :since
ORDER BY seq DESC LIMIT :limit;

-- name: containers_timed
-- When containers of some functions (a JSON list of ids) began, were ready and ended, of those that were there since a moment.
SELECT c.created_at, c.ended_at, c.state, s.total FROM containers c LEFT JOIN starts s ON s.container_id = c.container_id
WHERE c.app_id = :app_id AND c.function_id IN (SELECT value FROM json_each(:functions))
  AND (c.ended_at IS NULL OR c.ended_at >= :since)
ORDER BY c.created_at DESC LIMIT :limit;

-- name: starts_of_functions
-- The newest starts of some functions (a JSON list of ids).
SELECT how, total FROM starts WHERE function_id IN (SELECT value FROM json_each(:functions))
ORDER BY created_at DESC LIMIT :limit;

-- name: outputs_between
-- What came of inputs from one position to another.
SELECT number, start, count, kind, first, head, x'' AS body FROM outputs
WHERE call_id = :call_id AND kind <> 2 AND start < :stop AND start + count > :start ORDER BY number LIMIT :limit;

-- name: outputs_failed_from
-- Inputs of a call that did not return a value, in their order, from a position on.
SELECT start AS position, head FROM outputs WHERE call_id = :call_id AND kind = 1 AND start >= :start
ORDER BY start LIMIT :limit;

-- name: call_place
-- Where a call stands among others: to go on after it.
SELECT seq, done_at FROM calls WHERE call_id = :call_id;
