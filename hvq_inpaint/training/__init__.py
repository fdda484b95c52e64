"""Training in three stages: autoencoder (Eq. 2), encoder (Eq. 6 and 10), refiner (Eq. 17)."""
