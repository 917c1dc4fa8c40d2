// Hierarchical clusters of the groups, by average linkage of their drift: the order of a heatmap, and the tree beside it.

// Return the tree over the groups `isShown`, as its leaves in order and its joins: {start, end, left, right, height}, where
// start and end are the range of leaves, left and right the joins or the leaves below. Joins are in ascending order.
function clusterTree(data, isShown) {
  const { left, right, height } = data.clusters, n = data.n, nodes = [];
  for (let i = 0; i < n; i++) nodes.push(isShown(i) ? { leaves: [i], height: 0 } : null);
  const joins = [];
  for (let k = 0; k < left.length; k++) {
    const a = nodes[left[k]], b = nodes[right[k]];
    const join = a && b ? { left: a, right: b, leaves: [...a.leaves, ...b.leaves], height: height[k] } : a ?? b;
    if (a && b) joins.push(join);
    nodes.push(join);
  }
  return { leaves: nodes.at(-1)?.leaves ?? [], joins };
}

// Return the number of the cluster of each leaf, in the order of the leaves, when the tree is cut into `number` clusters.
function cutTree({ leaves, joins }, number) {
  const cluster = new Map(leaves.map((leaf, k) => [leaf, k]));
  for (const join of joins.slice(0, Math.max(0, joins.length + 1 - number))) for (const leaf of join.leaves) cluster.set(leaf, cluster.get(join.leaves[0]));
  return leaves.map((leaf) => cluster.get(leaf));
}

// Draw the tree to the right of the matrix: leaves at its rows, the root at the far right, drift scaled as in the colours.
function dendrogram({ leaves, joins }, { x, width, cell, number }) {
  const most = joins.at(-1)?.height || 1, across = (height) => x + 3 + (width - 10) * Math.sqrt(height / most);
  const middle = new Map(leaves.map((leaf, k) => [leaf, cell * (k + 0.5)])), at = (node) => middle.get(node.left ? node : node.leaves[0]);
  let d = "";
  for (const join of joins) {
    const a = at(join.left), b = at(join.right);
    middle.set(join, (a + b) / 2);
    d += `M${across(join.left.height).toFixed(1)} ${a.toFixed(1)}H${across(join.height).toFixed(1)}V${b.toFixed(1)}H${across(join.right.height).toFixed(1)}`;
  }
  const parts = [svg("path", { d, class: "branches" })];
  if (number > 1 && number <= joins.length) {
    const cut = across((joins.at(-number).height + joins.at(1 - number).height) / 2);
    parts.push(svg("line", { x1: cut, x2: cut, y1: 0, y2: cell * leaves.length, class: "cutline" }));
  }
  return svg("g", { class: cell < 3 ? "dendrogram many" : "dendrogram" }, ...parts);
}

// Return the lines that separate neighbours in a matrix whose names differ, as positions from 1 to n − 1.
const borders = (names) => range(names.length - 1).map((k) => k + 1).filter((k) => names[k] !== names[k - 1]);
