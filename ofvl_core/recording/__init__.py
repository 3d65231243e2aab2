"""What a robot recorded: bags written so that nothing is lost, and read whatever made them."""
