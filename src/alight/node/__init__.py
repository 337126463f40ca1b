"""The agent of one machine: images, volumes, GPUs and containers. It never imports the SDK or the runtime."""
