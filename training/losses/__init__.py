"""Training losses, one file each; a recipe finds them by the names that they register."""
