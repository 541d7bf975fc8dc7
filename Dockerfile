# The project with the versions of requirements_lock.txt.
#   docker build --tag hawk .                                      # CPU
#   docker build --tag hawk --build-arg JAX='jax[cuda12]' .        # NVIDIA GPUs
#   docker build --tag hawk --build-arg JAX='jax[tpu]' .           # TPUs
#   docker run --gpus all --volume "$PWD/out:/hawk/out" hawk experiments.generate --keep_ratio=0.2
FROM python:3.11-slim
ARG JAX=jax
WORKDIR /hawk
COPY requirements.txt requirements_lock.txt ./
# Constraints must not have extras, which the lock writes for Bazel.
RUN sed 's/\[.*\]//' requirements_lock.txt >constraints.txt \
 && pip install --no-cache-dir --disable-pip-version-check -r requirements.txt "$JAX" -c constraints.txt
COPY hawk_jax hawk_jax
COPY models models
COPY experiments experiments
ENTRYPOINT ["python", "-m"]
CMD ["experiments.generate"]
