"""What a user sees of a run: one view, folded from events, shown live, summed up and reported."""
