// Load the columns of the table of layers, once for all figures.
let layersOnce = null;
function layers() {
  layersOnce ??= load("layers").then((data) => {
    for (const name of ["model", "filters", "conv_depth", "depth", "sparsity", "entropy", "ratio", "p", "orthogonality", "verdict"]) data[name] = unpack(data[name]);
    data.n = data.names.length;
    data.kinds = (i) => core.rules.filter((_, k) => data.verdict[i] & (1 << k));
    return data;
  });
  return layersOnce;
}
