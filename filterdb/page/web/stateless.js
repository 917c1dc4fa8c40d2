// The page of a model keeps in its address which model it shows, but not the state of its table: in place of state.js.

const keep = () => {};
const chosenState = () => "";
const onState = () => {};
