-- name: proxy_token_add
-- Keep a new token of callers of web functions.
INSERT INTO proxy_tokens (token_id, secret_hash, name, owner, scope, environment, created_at)
VALUES (:token_id, :secret_hash, :name, :owner, :scope, :environment, :now);

-- name: proxy_tokens
-- All of them, newest first.
SELECT token_id, secret_hash, name, owner, scope, environment, created_at, last_used_at FROM proxy_tokens
ORDER BY created_at DESC, token_id DESC;

-- name: proxy_token_used
-- Note when one was last used.
UPDATE proxy_tokens SET last_used_at = :now WHERE token_id = :token_id;

-- name: proxy_token_name
-- Another name for one.
UPDATE proxy_tokens SET name = :name WHERE token_id = :token_id;

-- name: proxy_token_delete
-- Forget one: whoever has it is refused from the next request on.
DELETE FROM proxy_tokens WHERE token_id = :token_id;
