"""What a mesh is good for, to be tried: each lesson runs a mesh of `configs/lessons/` twice, without its policies and with them."""
