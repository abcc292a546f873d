"""What a person writes: Gateway API resources and our own kinds; read, checked, explained."""
