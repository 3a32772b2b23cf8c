"""What the echo loader is made of beside itself."""
