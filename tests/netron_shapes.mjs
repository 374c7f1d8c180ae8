// Opens argv[2] with the loaders of the Netron whose files lie beside this one; prints the shapes it has as JSON.
import * as fs from 'fs';
import * as path from 'path';

globalThis.window = { exports: {} };
const base = await import('./base.js');
const view = await import('./view.js');
const file = process.argv[2];
const open = (name) => new base.BinaryStream(new Uint8Array(fs.readFileSync(name)));
const host = {
    event() {},
    environment: () => null,
    exception(error) { throw error; },
    require: (id) => import(`${id}.js`),
    asset: (name) => fs.readFileSync(new URL(name, import.meta.url), 'utf-8'),
};
const context = {
    identifier: path.basename(file), stream: open(file), entries: new Map(),
    asset: host.asset, require: host.require, error: host.exception,
    fetch: async (name) => open(path.join(path.dirname(file), name)),
};
const sizes = (type) => (type?.shape?.dimensions?.length ? type.shape.dimensions : null);
const model = await new view.ModelFactoryService(host).open(context);
const graph = model.modules[0];
const values = graph.nodes.flatMap((node) => node.inputs.flatMap((argument) => argument.value));
const named = (list) => Object.fromEntries(list.map((argument) => [argument.name, sizes(argument.value[0].type)]));
console.log(JSON.stringify({
    nodes: graph.nodes.map((node) => node.name),
    weights: values.filter((value) => value.initializer).map((value) => sizes(value.initializer.type)),
    edges: values.filter((value) => !value.initializer).map((value) => sizes(value.type)),
    inputs: named(graph.inputs),
    outputs: named(graph.outputs),
}));
