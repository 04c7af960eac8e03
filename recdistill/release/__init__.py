"""The papers' released data, teacher files and weights; pickles are read without running them."""
