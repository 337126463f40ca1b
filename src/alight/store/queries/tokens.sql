-- name: token_add
-- Keep a new token; the secret itself is never stored.
INSERT INTO tokens (token_id, secret_hash, name, kind, owner, created_at)
VALUES (:token_id, :secret_hash, :name, :kind, :owner, :now);

-- name: token
-- The token that somebody says to have.
SELECT token_id, secret_hash, name, kind, owner, created_at, last_used_at FROM tokens WHERE token_id = :token_id;

-- name: tokens
-- All tokens, newest first.
SELECT token_id, name, kind, owner, created_at, last_used_at FROM tokens ORDER BY created_at DESC;

-- name: token_used
-- Note when a token was last used.
UPDATE tokens SET last_used_at = :now WHERE token_id = :token_id;

-- name: token_delete
-- Forget a token: who has it is a stranger from the next connection on.
DELETE FROM tokens WHERE token_id = :token_id;
