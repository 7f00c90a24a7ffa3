"""Sequence models (PyTorch): encoders, pretraining, fine-tuning, and their compiled runtime.

checkpoints: The state of a fit as one safetensors file with JSON in its header: no pickle, and never half
    written.
embedder: Embeddings of journeys: a pretrained encoder with the sequences that it reads, behind one call.
encoder: Encoders: from a ragged batch of steps to a state after each step and one embedding a journey.
finetuning: Fine-tuning: an encoder and a head for each task, fitted to labels; several tasks share one
    encoder.
fit_process: The process around a fit: what Lightning changes is put back, Ctrl-C arrives, and spawned
    processes can ask back.
fitting: Fits any torch network: learning-rate schedule, early stopping, exact resume after a kill. Knows
    nothing of journeys.
gru: A gated recurrent unit in continuous time, from its equations to its gradients; made to be read from
    top to bottom.
gru_kernels: The compiled GRU of services: `gru` and the pools of `encoder`, forward only, without PyTorch.
lightning_fit: What `fitting` gives to Lightning: the step, the batches, the end of an epoch. Imported while
    fitting only.
model: Sequence models: a pretrained encoder, fine-tuned to the label, behind the contract of every model.
occlusion: Reasons for what a sequence model says: how far the log-odds move when a touchpoint is left out
    of the journey.
pretraining: Self-supervised pretraining: what journeys teach without a label.
probe: A linear probe: ridge logistic regression on the embeddings of a pretrained encoder, or of one that
    learnt nothing.
runtime: What runs an encoder in a service: the fastest that was measured, without anything that training
    needs.
settings: Settings of the sequence models, as plain dataclasses that need no PyTorch: to read, to save, to
    search.
torch_runtime: Runs any encoder in PyTorch, eager: what serves a Transformer.
transformer: A causal Transformer in continuous time: attention that knows how long ago each step was, not
    only how many steps.
"""
