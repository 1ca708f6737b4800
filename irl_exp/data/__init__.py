"""Where texts come from, and the two data types of a study: comments and demonstrations."""
