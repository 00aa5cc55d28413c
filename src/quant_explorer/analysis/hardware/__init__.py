"""What hardware explains: each layer under the roof, and estimates for a slower clock."""
