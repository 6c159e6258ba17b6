// An SFTP server on the ssh2 library, written as its examples and most services on it are: the flags of an OPEN
// become one of fopen's modes or are refused, every request is answered when the file system is done with it (so in
// any order), there are no extensions, and RENAME replaces nothing. Clients see ROOT as "/".
//
//   node ssh2_server.js ROOT HOST PORT USER KEY...      the password is in SFTP_PASSWORD

'use strict';

const fs = require('fs');
const path = require('path');
const { Server, utils: { sftp: { flagsToString, STATUS_CODE } } } = require('ssh2');

const [root, host, port, user, ...keys] = process.argv.slice(2);
const OPEN_HANDLES = 200;

function codeOf(error) {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return STATUS_CODE.NO_SUCH_FILE;
  if (error.code === 'EACCES' || error.code === 'EPERM') return STATUS_CODE.PERMISSION_DENIED;
  return STATUS_CODE.FAILURE;
}

function attributes(found) {
  return {
    mode: found.mode, uid: found.uid, gid: found.gid, size: found.size,
    atime: Math.floor(found.atimeMs / 1000), mtime: Math.floor(found.mtimeMs / 1000),
  };
}

function writeAll(descriptor, data, offset, done) {
  fs.write(descriptor, data, 0, data.length, offset, (error, written) => {
    if (error || written === data.length) return done(error);
    writeAll(descriptor, data.subarray(written), offset + written, done);
  });
}

function serve(sftp) {
  const handles = new Map();
  let opened = 0;

  const status = (id) => (error) => sftp.status(id, error ? codeOf(error) : STATUS_CODE.OK);
  const shown = (name) => path.posix.normalize(`/${name}`);
  const local = (name) => path.join(root, shown(name));
  const withHandle = (id, handle, act) => {
    const found = handles.get(handle.toString('hex'));
    return found ? act(found) : sftp.status(id, STATUS_CODE.FAILURE);
  };
  const keep = (id, value) => {
    const name = Buffer.alloc(4);
    name.writeUInt32BE(++opened);
    handles.set(name.toString('hex'), value);
    sftp.handle(id, name);
  };
  const apply = (id, name, wanted) => {
    if (wanted.mtime === undefined && wanted.mode === undefined) return sftp.status(id, STATUS_CODE.OP_UNSUPPORTED);
    const chmod = (error) => (error || wanted.mode === undefined
      ? status(id)(error) : fs.chmod(name, wanted.mode & 0o7777, status(id)));
    return wanted.mtime === undefined ? chmod(null) : fs.utimes(name, wanted.atime, wanted.mtime, chmod);
  };

  sftp.on('OPEN', (id, name, flags, wanted) => {
    const mode = flagsToString(flags);
    if (!mode || handles.size >= OPEN_HANDLES) return sftp.status(id, STATUS_CODE.FAILURE);
    fs.open(local(name), mode, wanted.mode === undefined ? 0o666 : wanted.mode & 0o7777, (error, descriptor) => (
      error ? status(id)(error) : keep(id, { descriptor, name: local(name) })));
  });
  sftp.on('READ', (id, handle, offset, length) => withHandle(id, handle, ({ descriptor }) => {
    const data = Buffer.alloc(length);
    fs.read(descriptor, data, 0, length, offset, (error, count) => {
      if (error) return status(id)(error);
      return count ? sftp.data(id, data.subarray(0, count)) : sftp.status(id, STATUS_CODE.EOF);
    });
  }));
  sftp.on('WRITE', (id, handle, offset, data) => withHandle(id, handle, ({ descriptor }) => {
    writeAll(descriptor, data, offset, status(id));
  }));
  sftp.on('CLOSE', (id, handle) => withHandle(id, handle, ({ descriptor }) => {
    handles.delete(handle.toString('hex'));
    return descriptor === undefined ? sftp.status(id, STATUS_CODE.OK) : fs.close(descriptor, status(id));
  }));
  const look = (how) => (id, name) => how(local(name), (error, found) => (
    error ? status(id)(error) : sftp.attrs(id, attributes(found))));
  sftp.on('STAT', look(fs.stat));
  sftp.on('LSTAT', look(fs.lstat));
  sftp.on('FSTAT', (id, handle) => withHandle(id, handle, ({ descriptor }) => (
    fs.fstat(descriptor, (error, found) => (error ? status(id)(error) : sftp.attrs(id, attributes(found)))))));
  sftp.on('SETSTAT', (id, name, wanted) => apply(id, local(name), wanted));
  sftp.on('FSETSTAT', (id, handle, wanted) => withHandle(id, handle, ({ name }) => apply(id, name, wanted)));
  sftp.on('REMOVE', (id, name) => fs.unlink(local(name), status(id)));
  sftp.on('MKDIR', (id, name) => fs.mkdir(local(name), status(id)));
  sftp.on('RMDIR', (id, name) => fs.rmdir(local(name), status(id)));
  sftp.on('RENAME', (id, from, to) => fs.lstat(local(to), (error) => (
    error && error.code === 'ENOENT'
      ? fs.rename(local(from), local(to), status(id)) : sftp.status(id, STATUS_CODE.FAILURE))));
  sftp.on('REALPATH', (id, name) => sftp.name(id, [{ filename: shown(name), longname: shown(name), attrs: {} }]));
  sftp.on('OPENDIR', (id, name) => fs.readdir(local(name), (error, names) => (
    error ? status(id)(error) : keep(id, { folder: local(name), names }))));
  sftp.on('READDIR', (id, handle) => withHandle(id, handle, (open) => {
    const names = open.names.splice(0, 100);
    if (!names.length) return sftp.status(id, STATUS_CODE.EOF);
    return sftp.name(id, names.map((filename) => (
      { filename, longname: filename, attrs: attributes(fs.lstatSync(path.join(open.folder, filename))) })));
  }));
  sftp.on('close', () => {
    for (const { descriptor } of handles.values()) if (descriptor !== undefined) fs.close(descriptor, () => {});
    handles.clear();
  });
}

new Server({ hostKeys: keys.map((key) => fs.readFileSync(key)) }, (client) => {
  client.on('authentication', (attempt) => {
    const right = attempt.method === 'password' && attempt.username === user
      && attempt.password === process.env.SFTP_PASSWORD;
    return right ? attempt.accept() : attempt.reject(['password']);
  });
  client.on('ready', () => client.on('session', (accept) => {
    accept().on('sftp', (acceptSftp) => serve(acceptSftp()));
  }));
  client.on('error', () => {}); // a connection that was cut
}).listen(Number(port), host);
