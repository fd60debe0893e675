"""What encoders made of torch are built of: networks, losses, reductions, views, steps."""
