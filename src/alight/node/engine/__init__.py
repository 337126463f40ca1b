"""What runs containers: one protocol (``base``), and a file for each way to do it."""
