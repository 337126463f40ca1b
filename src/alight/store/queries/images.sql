-- name: function_specs_alive
-- What functions of apps that have not stopped are made of.
SELECT f.spec FROM functions f JOIN apps a ON a.app_id = f.app_id WHERE a.state <> 'stopped';
