"""What the loop needs to know of a device."""
