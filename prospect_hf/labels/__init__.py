"""State labels made from annotations."""
