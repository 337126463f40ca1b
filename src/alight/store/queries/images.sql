-- name: function_specs_alive
-- What functions of apps that have not stopped are made of.
SELECT f.spec FROM functions f JOIN apps a ON a.app_id = f.app_id WHERE a.state <> 'stopped';

-- name: image_name_put
-- Give an image a name, or take it from another one.
INSERT INTO image_names (environment, name, tag, image_id, named_at) VALUES (:environment, :name, :tag, :image_id, :now)
ON CONFLICT (environment, name, tag) DO UPDATE SET image_id = excluded.image_id, named_at = excluded.named_at;

-- name: image_name_get
-- Which image a name means.
SELECT image_id FROM image_names WHERE environment = :environment AND name = :name AND tag = :tag;

-- name: image_names
-- All names of images, the last given first.
SELECT environment, name, tag, image_id, named_at FROM image_names ORDER BY named_at DESC, name, tag;

-- name: image_name_drop
-- A name is taken away; the image stays.
DELETE FROM image_names WHERE environment = :environment AND name = :name AND tag = :tag;

-- name: image_specs_used
-- Recipes of images that have names, or were asked for lately.
SELECT spec FROM images WHERE last_used_at > :since OR image_id IN (SELECT image_id FROM image_names);
