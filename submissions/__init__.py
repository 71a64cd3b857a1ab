"""What leaves the building: submissions, their validation, comparison, and the leaderboard."""
