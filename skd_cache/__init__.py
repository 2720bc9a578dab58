"""Teacher-free knowledge distillation from a shared cache of logits."""
