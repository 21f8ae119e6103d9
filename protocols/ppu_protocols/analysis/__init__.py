"""What is made of measured data: which phases, how much of each, how surely."""
