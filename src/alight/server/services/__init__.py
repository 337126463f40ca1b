"""The verbs of the control plane, one noun per file. Services know the store and each other, never a route."""
