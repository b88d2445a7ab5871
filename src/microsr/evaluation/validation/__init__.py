"""What each metric makes of images whose faults are known."""
