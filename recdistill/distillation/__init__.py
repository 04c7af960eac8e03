"""What a student learns from a teacher: losses, the objective, and the policies that choose samples; torch only."""
