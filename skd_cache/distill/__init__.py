"""Stage two: students trained on replayed images and what was stored about them, teacher absent."""
