"""The mechanism: who listens to which hook, in which order, and one fast function for each."""
