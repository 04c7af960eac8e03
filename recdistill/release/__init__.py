"""What the papers released: their files and pickles, read without running them."""
