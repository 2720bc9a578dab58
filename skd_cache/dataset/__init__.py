"""What sample ``i`` of a dataset is: its bytes, label, size and place in the order."""
