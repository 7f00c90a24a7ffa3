"""Sequence models (PyTorch): encoders, pretraining, fine-tuning, and their compiled runtime.

checkpoints: The state of a fit as one safetensors file with JSON in its header: no pickle, never half written.
embedder: Embeddings of journeys: a pretrained encoder together with the sequences that it reads.
encoder: Encoders: from a ragged batch of steps to a state after each step and one embedding a journey.
finetuning: Fine-tuning: an encoder and a head for each task, fitted to labels; tasks share the encoder.
fit_process: The process around a fit: global state is restored, Ctrl-C works, spawned processes can report.
fit_settings: How a fit is set up and what it leaves behind: settings, networks, batches, the curve of its losses.
fitting: Fits any torch network: learning-rate schedule, early stopping, exact resume after a kill.
gru: A gated recurrent unit in continuous time, from its equations to its gradients.
gru_kernels: The compiled GRU of services: `gru` and the pools of `encoder`, forward only, without PyTorch.
lightning_fit: The loop of a fit in Lightning: steps, batches, the end of an epoch, checkpoints.
model: Sequence models: a pretrained encoder, fine-tuned to the label, behind the contract of every model.
occlusion: Reasons of sequence models: the change of the log-odds when a touchpoint is removed from the journey.
pretraining: Self-supervised pretraining: next step, and CoLES.
probe: A linear probe: ridge logistic regression on the embeddings of an encoder.
runtime: Runs a fitted encoder, without Lightning and, for a GRU, without PyTorch.
settings: Settings of the sequence models, as plain dataclasses that need no PyTorch.
torch_runtime: Runs an encoder in PyTorch, eager; a service runs Transformers with it.
transformer: A causal Transformer in continuous time: attention by the time and the steps between events.
"""
