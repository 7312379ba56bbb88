"""What the command line shows: the user's image, two answers side by side, a picture of them, the state of things."""
