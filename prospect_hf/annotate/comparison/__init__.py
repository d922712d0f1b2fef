"""Two sets of state labels side by side: what they say of each video, how far they agree, and a page of both."""
